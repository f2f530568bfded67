"""A member of PEFT's closed enumeration of methods, added from outside.

PEFT has no plug-in mechanism: `register_peft_method` takes only names that are members of `PeftType`, and transformers'
own adapter loader reads `peft_type.value`, so a plain string in PEFT's tables is not enough.
"""

from peft.utils.peft_types import PeftType


def add_peft_type(name: str) -> PeftType:
    """Return the member `name` of `PeftType`, which is made if it does not exist.

    Args:
        name: upper case; its lower case plus "_" must be the prefix of the method's parameters.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    member.__objclass__ = PeftType
    member._sort_order_ = len(PeftType._member_names_)
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    type.__setattr__(PeftType, name, member)
    return member


KS_TICKET = add_peft_type("KS_TICKET")
