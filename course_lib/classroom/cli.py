"""The ``course`` command. Exit codes: 0 all well, 1 something failed, 2 the command was wrong, 130 interrupted.

Each command imports what it needs when it is called, so that ``course --help`` does not wait for torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

app = typer.Typer(
    name="course",
    help="Run, open, release and grade the course on deep generative models.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
console = Console()


@app.command()
def doctor(
    grading: Annotated[
        bool, typer.Option("--grading", help="Attack this machine as a hostile submission would, for ten seconds.")
    ] = False,
) -> None:
    """Check that this machine can run the course; each line says ok, or what is wrong and how to fix it.

    Example: [bold]course doctor[/bold]

    Before grading strangers' work: [bold]course doctor --grading[/bold]
    """
    if grading:
        from course_lib.classroom.attack import attack_this_machine
        from course_lib.classroom.attack import show as show_outcomes
        from course_lib.classroom.course import CourseError
        from course_lib.classroom.places import course_root

        try:
            raise typer.Exit(0 if show_outcomes(attack_this_machine(course_root()), console) else 1)
        except CourseError as error:
            raise _failure(str(error)) from None
    from course_lib.classroom.doctor import examine, show

    findings = examine()
    show(findings, console)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command()
def lab(
    lecture: Annotated[str | None, typer.Argument(metavar="[NN]", help="Lecture number or name.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server.")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open JupyterLab on the course, at a lecture.

    Example: [bold]course lab 04[/bold] opens lectures/04_vae.ipynb
    """
    from course_lib.classroom.lab import open_lab
    from course_lib.classroom.places import UnknownNotebook, course_root

    try:
        raise typer.Exit(open_lab(course_root(), lecture, port, browser))
    except UnknownNotebook as error:
        raise typer.BadParameter(str(error), param_hint="'NN'") from None


@app.command()
def run(
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NOTEBOOK]...", help="Paths, numbers or names (04, 04_vae, a04). Default: all."),
    ] = None,
    budget: Annotated[Literal["quick", "full"], typer.Option(help="How much training the notebooks do.")] = "quick",
    seed: Annotated[int, typer.Option(help="Random seed given to every notebook.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Notebooks at a time. Default: one per core.", show_default=False)
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="A running Dask scheduler, whose workers see the same checkout."),
    ] = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Executed notebooks and reports.")] = Path("course_run"),
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Limit for each notebook.")] = 1800,
) -> None:
    """Execute notebooks, each in a fresh process, and write a report.

    Example: [bold]course run 04 a04 --budget quick[/bold]

    All lectures and solutions on two cores: [bold]course run --workers 2[/bold]
    """
    from course_lib.classroom.run import BadRequest, Request, run_course

    request = Request(tuple(notebooks or ()), budget, seed, device, workers, scheduler, out, timeout)
    try:
        raise typer.Exit(run_course(request, console))
    except BadRequest as error:
        raise typer.BadParameter(str(error), param_hint=error.option) from None


@app.command()
def train(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Models of the zoo, trained in this order.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Fewer, for a trial. Default: what the recipe says.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of initialization, order of the data and noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for weights and model cards. Default: the zoo itself."),
    ] = None,
) -> None:
    """Train models that the course ships, measure them, and write weights with a model card.

    Example: [bold]course train gated_pixelcnn_digits[/bold]

    What there is, and what each card says: [bold]course train[/bold]
    """
    from course_lib import zoo
    from course_lib.classroom.train import BadModel, catalogue, train_models

    if not names:
        console.print(catalogue(zoo.WEIGHTS))
        return
    try:
        train_models(names, steps, seed, device, out or zoo.WEIGHTS, console)
    except BadModel as error:
        raise typer.BadParameter(str(error), param_hint="'NAME'") from None
    except (ValueError, FileNotFoundError) as error:
        raise _failure(str(error)) from None


@app.command()
def release(
    assignments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ASSIGNMENT", help="Names or numbers (a04_vae, a04). Default: all."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail on drift and on leaks.")] = False,
) -> None:
    """Generate assignments/ from solutions/, or check that it is what would be generated and leaks nothing.

    Example: [bold]course release --check[/bold]
    """
    from course_lib.classroom.course import CourseError
    from course_lib.classroom.places import course_root
    from course_lib.classroom.release import release as release_assignments

    try:
        result = release_assignments(course_root(), assignments or (), check)
    except CourseError as error:
        raise _failure(str(error)) from None
    for line in result.unsealed:
        console.print(f"not sealed: {line}", markup=False, highlight=False, soft_wrap=True)
    for path in result.written:
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    if result.problems:
        raise _failure("\n".join(result.problems))
    console.print("assignments/ is what solutions/ generates, and leaks nothing", highlight=False)


@app.command()
def bundle(
    out: Annotated[Path, typer.Option(dir_okay=False, help="The zip to write.")] = Path("dist/course.zip"),
) -> None:
    """Make the zip that students get: lectures, assignments, library, set-up; no solutions and no tests.

    Example: [bold]course bundle --out course.zip[/bold]
    """
    from course_lib.classroom.bundle import bundle as write_bundle
    from course_lib.classroom.course import CourseError
    from course_lib.classroom.places import course_root

    try:
        files = write_bundle(course_root(), out)
    except CourseError as error:
        raise _failure(str(error)) from None
    console.print(f"wrote {out}: {len(files)} files, {out.stat().st_size / 2**10:.0f} KiB", soft_wrap=True)


@app.command()
def grade(
    assignment: Annotated[
        str | None, typer.Argument(metavar="ASSIGNMENT", help="Name or number (a04_vae, a04).")
    ] = None,
    submissions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Holds <student>/<assignment>/<assignment>.ipynb. Default: what nbgrader collected.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Submissions at a time. Default: one a core and 4 GiB.", show_default=False),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:PORT", help="A running Dask scheduler, whose workers have this course too."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Grade only what is new or changed: finish an interrupted run.")
    ] = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="Write marks that differ from those that are in the gradebook.")
    ] = False,
    timestamps: Annotated[
        bool,
        typer.Option("--timestamps", help="Believe the timestamp.txt in the students' folders: you wrote them."),
    ] = False,
    no_sandbox: Annotated[
        bool, typer.Option("--no-sandbox", help="Let the submissions do what they like here. Only for your own.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Grade the reference solutions; every automatic point must be reached.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write the scores here too.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Gradebook and feedback. Default: classroom_data/."),
    ] = None,
) -> None:
    """Grade submissions in a sandbox (or the reference solutions): scores, what failed, feedback as HTML.

    New marks are written at once. Where a student has other marks already, the difference is shown, and is written
    only with [bold]--commit[/bold].

    Example: [bold]course grade a04 --submissions inbox/ --csv scores.csv[/bold]

    The graders themselves: [bold]course grade --reference[/bold]
    """
    from course_lib.classroom.course import CourseError
    from course_lib.classroom.grade import Choices, grade_with_report, reference_with_report
    from course_lib.classroom.places import course_root
    from course_lib.classroom.workforce import Place

    if reference and submissions is not None:
        raise typer.BadParameter("give either --submissions DIR or --reference", param_hint="'--submissions'")
    if not reference and assignment is None:
        raise typer.BadParameter("which assignment?", param_hint="'ASSIGNMENT'")
    root = course_root()
    try:
        if reference:
            chosen = [assignment] if assignment else []
            raise typer.Exit(reference_with_report(root, chosen, csv, data, workers, console))
        choices = Choices(Place(workers, scheduler), resume, commit, not no_sandbox, timestamps)
        raise typer.Exit(grade_with_report(root, str(assignment), submissions, csv, data, choices, console))
    except CourseError as error:
        raise _failure(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def report(
    assignment: Annotated[str, typer.Argument(metavar="ASSIGNMENT", help="Name or number (a04_vae, a04).")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="The --data of `course grade`. Default: classroom_data/."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="The page. Default: reports/ASSIGNMENT.html in the data."),
    ] = None,
    submissions: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Compare these. Default: what `course grade` graded."),
    ] = None,
    roster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Export of Canvas or Moodle: names and IDs for the exports."),
    ] = None,
) -> None:
    """Report on a graded assignment: scores, questions, common failures, look-alikes; CSV for Canvas and Moodle.

    Example: [bold]course report a04[/bold]
    """
    from course_lib.classroom.class_report import report as write_report
    from course_lib.classroom.course import CourseError
    from course_lib.classroom.places import course_root

    try:
        written = write_report(course_root(), assignment, data, out, submissions, roster)
    except CourseError as error:
        raise _failure(str(error)) from None
    for path in (written.page, *written.tables):
        console.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{written.students} students, {written.ungraded} could not be graded, {written.left_out} without a final mark "
        "(not in the tables for Canvas and Moodle)",
        highlight=False,
        soft_wrap=True,
    )


def _failure(message: str) -> typer.Exit:
    """Say what is wrong, on stderr; raise the result to leave with exit code 1."""
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
