"""`export`: a trained model as a MONAI bundle, an ONNX file or one in 8 bits."""
