"""What runs the course rather than teaches it: ``course doctor | lab | run | release | bundle | grade``.

Nothing here imports a model.
"""
