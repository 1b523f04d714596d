"""The right to execute one run for a while."""

from dataclasses import dataclass
from datetime import datetime

from durably.core.quick_init import quick_init


@quick_init
@dataclass(frozen=True, slots=True)
class Claim:
    """Proof of one claim: every write of a run carries it and holds only while `generation` is current."""

    run_id: str
    generation: int
    owner: str
    expires_at: datetime
