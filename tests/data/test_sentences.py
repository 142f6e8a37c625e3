from fedbrats.data.sentences import plural, some


def test_numbers_and_names_in_a_sentence() -> None:
    assert [plural(n, "scan") for n in (0, 1, 2)] == ["0 scans", "1 scan", "2 scans"]
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some("abcde") == "a, b, c and 2 more"
