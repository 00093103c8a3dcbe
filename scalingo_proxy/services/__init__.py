"""What starts and stops: children of one MultiService, each stop a drain."""
