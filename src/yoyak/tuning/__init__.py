"""A trained model is tuned for the metric that judges it."""
