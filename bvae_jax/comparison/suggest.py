"""`bvae suggest` from Python: which setting one would take without labels."""

import sys
from pathlib import Path
from typing import Literal

from bvae_jax.comparison import suggestion
from bvae_jax.comparison.evidence import POINTS, comparisons, gather
from bvae_jax.comparison.reading import read_comparison
from bvae_jax.errors import UserError
from bvae_jax.progress import bar
from bvae_jax.runs import rundir
from bvae_jax.runs.encode import encode_run
from bvae_jax.runs.programs import Programs

FILE = "suggestion.json"


def suggest(
    *sweep_dirs: str | Path,
    rate: float | None = None,
    measure: Literal["lasso", "spearman"] = "lasso",
    out: str | Path | None = None,
    progress: bool = True,
) -> suggestion.Suggestion:
    """Choose a setting by how far its runs agree with each other, or by a target for the KL.

    No label is read. Leaves suggestion.json.

    Args:
        sweep_dirs: of one sweep or more, on the same data set.
        rate: wanted KL in nats per image; without it the agreement of seeds decides (UDR).
        measure: of the similarity of two latents.
        out: directory for suggestion.json; the first sweep's if None.

    Raises:
        UserError: a directory holds no sweep, or no member is done.
    """
    if not sweep_dirs:
        raise UserError("Wanted the directory of a sweep, or of several.")
    directories = [Path(path).expanduser() for path in sweep_dirs]
    programs, codes = Programs(), {}
    comparison = read_comparison(directories, None, programs, progress=progress)
    runs = comparison.run_dirs
    with bar(total=len(runs), desc="encode", unit=" members", disable=not progress) as shown:
        for name, run_dir in runs.items():
            shown.update(1)
            try:
                run = programs.load(run_dir)
            except UserError as error:
                print(f"bvae: {name} is left out: {error}", file=sys.stderr)
                continue
            count = min(POINTS, run.program.dataset.size)
            codes[name] = encode_run(run_dir, run.program, run.params, count, progress=False).means
    members = comparison.members.loc[list(codes)]
    total = comparisons(members)
    with bar(total=total, desc="compare", unit=" pairs", disable=not progress) as shown:
        evidence = gather(
            codes,
            comparison.kl_per_latent,
            members,
            settings=comparison.settings,
            varied=comparison.varied,
            on_done=lambda: shown.update(1),
        )
    found = suggestion.suggest(evidence, rate=rate, measure=measure)
    absent = len(comparison.missing) + len(comparison.failed) + len(runs) - len(codes)
    if absent:
        missing = f"{absent} members are not finished or cannot be read, and were not looked at."
        found = found._replace(cautions=[missing, *found.cautions])
    directory = Path(out).expanduser() if out else directories[0]
    directory.mkdir(parents=True, exist_ok=True)
    rundir.write_json(directory / FILE, suggestion.to_json(found))
    return found
