"""Sealed tests: an assignment's checks run in one process, the student's functions in another.

The checker (T) never executes the student's code. It holds stand-ins (`remote.Remote`) for the names that the student's
cells define; calling one sends data to the student's process (S) and gets data back. Gradients cross as vector-Jacobian
products, so that a test may differentiate through a student's function and a student through a test's.

What travels to the student may be any object (`to_student`); what comes from there is plain data or a stand-in
(`from_student`), because everything that S says is untrusted.
"""
