"""The comparison of a sweep whose jobs classify: what differs from that of regions."""
