"""What a test sees when the student's process does not answer as a function should."""


class StudentError(RuntimeError):
    """The student's code raised something that has no equal here, or answered with what is no data."""
