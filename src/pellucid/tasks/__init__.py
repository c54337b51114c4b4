"""What people do with a model, one file a task: `prepare`, the model, `finish`, and a result type."""
