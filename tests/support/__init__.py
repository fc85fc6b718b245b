"""What tests share: one helper that waits, and ways to run Conveyor and look at it from outside."""
