"""The prepared data sets as TensorFlow Datasets in ArrayRecord files, without TensorFlow."""
