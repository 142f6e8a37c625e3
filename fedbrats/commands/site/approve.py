"""`site approve`: read what a study asks for, and let this site take part."""

from __future__ import annotations

from fedbrats.commands.site.words import failed, parser
from fedbrats.config.site_file import load_site_file
from fedbrats.config.targets import ConfigError


def main(arguments: list[str]) -> int:
    """Show the plan and, with `--yes` or a yes at the terminal, approve it; 1 where the answer is no."""
    asked = parser("Show the plan of a study that came to this site, and approve it.")
    asked.add_argument("study", help="name of the study")
    asked.add_argument("--yes", action="store_true", help="approve without asking")
    asked.add_argument("--show", action="store_true", help="show the plan and approve nothing")
    options = asked.parse_args(arguments)
    from fedbrats.studies.at_site import approve, study_folder
    from fedbrats.studies.own_values import StudyRefused
    from fedbrats.studies.plan import plan_of

    try:
        site = load_site_file(options.site)
        folder = study_folder(site, options.study)
        print(plan_of(site, folder), flush=True)
        if options.show:
            return 0
        if not options.yes and input("Approve? [y/N] ").strip().lower() not in ("y", "yes"):
            print("not approved; nothing has changed")
            return 1
        print(f"approved: {approve(folder)}")
    except (ConfigError, StudyRefused, OSError, EOFError) as error:
        return failed(error)
    return 0
