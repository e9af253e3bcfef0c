"""The section of time courses."""

from glfa_jax.data.store import Store
from glfa_jax.report import figures
from glfa_jax.report.html import escape
from glfa_jax.report.inspection.findings import courses
from glfa_jax.report.words import count_text


def courses_section(store: Store) -> str:
    out = [
        "<p>The mean over the cortex, in per cent of its mean within each run; runs one after "
        "another, upright lines between them, "
        '<span style="color:var(--accent)">train runs</span> and '
        '<span style="color:var(--extra-2)">test runs</span> in their colours. Slow waves of a per '
        "cent or two are usual. A first volume that sticks out was recorded before the steady "
        "state and should be dropped; jumps and spikes are motion.</p>"
    ]
    for number, subject in enumerate(store.attributes.subjects):
        parts = courses(store, subject)
        if not parts:
            continue
        svg = figures.time_course(
            [course for _, course in parts],
            marked=[run["split"] == "test" for run, _ in parts],
            step=store.attributes.repetition_time,
            salt=f"course{number}",
            label=f"Mean signal of the cortex over all runs, subject {subject}",
        )
        first, last = (escape(str(parts[i][0]["name"])) for i in (0, -1))
        out.append(
            f'<figure class="course"><figcaption>subject {escape(subject)}, '
            f"{count_text(len(parts), 'run')}: {first} to {last}</figcaption>{svg}</figure>"
        )
    return "".join(out)
