"""What a run leaves on disk: its journal, its folder, its report."""
