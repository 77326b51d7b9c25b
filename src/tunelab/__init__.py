"""TuneLab: fine-tune language models and find out, with evidence, which hyper-parameters matter."""

__version__ = "0.1.0"
