"""Many experiments, run side by side through the stages."""
