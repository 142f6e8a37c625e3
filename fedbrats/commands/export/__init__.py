"""`export`: a trained model as a MONAI bundle or an ONNX file."""
