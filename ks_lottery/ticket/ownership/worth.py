"""What each kind of proof is worth, in the words that people read."""

SIGNATURE_WORTH = (
    "A signature proves who published this file and that nothing in it changed since; it does not prove who trained or "
    "found the ticket first, and whoever copies the units can sign the copy with another key."
)
MARK_WORTH = (
    "A mark proves that whoever made this mask knew the owner's secret. It outlives training under the mask and "
    "moderate dropping of weights (docs/ownership.md has the measured table), not reordered neurons, nor a thief who "
    "finds the ticket again. A date has to come from elsewhere: publish the SHA-256 of the mark key before the ticket."
)
TRIGGER_WORTH = (
    "A trigger set is evidence only while it is secret: each prompt that a claim shows is spent, and anybody who knows "
    "the set can train a model to answer it."
)
