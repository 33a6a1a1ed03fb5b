"""Learnability: how well a metanet predicts a target from weights, by the number of networks.

Grid of population x treatment x metanet x number of training networks x target x seed, one row
each. Every study shows the floor `hparams`, which sees the hyperparameters only, and repeats its
metrics on label-matched test networks (see `studies.learnability.matching`).

References:
    Lim, Putterman, Walters, Maron and Jegelka 2024, arXiv 2405.20231, section 5.3 and table 3.
"""

from studies.common.base import Study
from studies.learnability.ablation import plan_ablation
from studies.learnability.config import Learnability
from studies.learnability.plan import plan_study
from studies.learnability.report import make_report
from studies.learnability.tables import make_tables

STUDY = Study(
    "learnability",
    Learnability,
    plan_study,
    make_tables,
    make_report,
    further={"ablation": plan_ablation},
)
