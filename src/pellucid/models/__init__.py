"""A loaded model: config + spec + modules + weights, with one forward for every use."""
