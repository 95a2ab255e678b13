"""x"""
from geovlm_ray.data.formats.base import Source
def refuse_other_format(name: str, source: Source) -> None:
    """x"""
