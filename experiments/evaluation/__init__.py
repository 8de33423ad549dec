"""The parts of `experiments/evaluation/evaluate.py`: what is measured, and how long measurements survive interruptions.

`classes` deals the classes of samples,
`journal` keeps what was computed per sample, `features` draws samples and keeps their features, `reference` has the
statistics of real images, `figures` compares the two, `losses` and `likelihood` measure the model on images.
"""
