"""How fast it is here: ours and others' steps in turn, each in a process of its own."""
