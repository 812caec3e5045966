"""Prepared data sets stored as TensorFlow Datasets in ArrayRecord files, without TensorFlow."""
