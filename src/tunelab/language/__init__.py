"""The language of messages and pages: English in the source, others in one catalogue file each."""
