"""A trained model outside of fedbrats: a MONAI bundle, an ONNX file or INT8, with its proof and its model card."""
