"""What scores are called where people read them; files and settings keep their keys."""

from tunelab.language.translation import message, translate

SCORE_LABELS = {  # of keys that need an explanation; others read as they are
    "plain_loss": message("loss in eval mode"),
    "unfinished": message("share of answers cut"),
    "unmatched": message("share of answers that name no choice"),
    "f1_all": message("f1 over all classes"),
    "generalisation_gap": message("generalisation gap"),
}


class ScoreName(str):
    """The key of a score in a report: its CSV files hold the key, its page and its Markdown the words for it."""


def score_label(key: str) -> str:
    """The words for a score, of a split too.

    Example:
        >>> score_label("train/plain_loss"), score_label("val/accuracy")
        ('train loss in eval mode', 'val/accuracy')
    """
    split, _, bare = key.rpartition("/")
    label = SCORE_LABELS.get(bare)
    return key if label is None else " ".join(filter(None, (split, translate(label))))
