"""What measures of trained models share: what a measure is, and the models, images and masks of an evaluation."""
