"""A trained model outside of fedbrats: a MONAI bundle or an ONNX file, with its proof and its model card."""
