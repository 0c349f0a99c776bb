"""A trained model as files that others load: written, held to the model that the pipeline has, described, pushed."""
