"""What a run is called in a tracker: the words that set it apart from its neighbours.  Pure."""

from collections.abc import Collection, Sequence

LONGEST = 120  # characters; W&B takes 128

# Words that say where a run goes or how it is watched, not what it tries.
_ELSEWHERE = ("hydra.", "logger", "trial.", "search", "callbacks", "name=", "save=", "resume=", "test=", "eval.")


def title(place: str, words: Sequence[str], shared: Collection[str] = ()) -> str:
    """Name a run after what sets it apart.

    Args:
        place: Where it stands, as a run folder or a trial's number; always first, so that no two runs share a name.
        words: What its command line changed.
        shared: Words that every run beside it has too, such as what all trials of a study were given.

    Returns:
        The place, then the telling words, cut at whole words to 120 characters.
    """
    telling = [word for word in words if word not in shared and not word.lstrip("+~").startswith(_ELSEWHERE)]
    found = place
    for word in telling:
        if len(found) + len(word) + 2 > LONGEST:
            return f"{found} …"
        found = f"{found} {word}"
    return found
