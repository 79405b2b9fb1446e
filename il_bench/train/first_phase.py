"""What is said of VQ-BeT's first phase, which trains the residual VQ alone: its rates are no policy's."""


def ahead(first_phase_steps: int, steps: int) -> str:
    """Before it begins; ``steps`` are all there will be."""
    never = "" if steps > first_phase_steps else f"; {steps} steps end in it, and train no policy at all"
    return (
        f"steps 1 to {first_phase_steps} train the residual VQ alone: no success rate up to step "
        f"{first_phase_steps} is to be taken seriously{never}"
    )


def over(first_phase_steps: int) -> str:
    """When it ends."""
    return (
        f"step {first_phase_steps}: first phase over, the residual VQ is trained and frozen; the policy "
        "itself is trained from here on, and no success rate before this is to be taken seriously"
    )


def void(step: int, first_phase_steps: int) -> str:
    """Of an evaluation within it."""
    return (
        f"step {step}: no policy yet, only the residual VQ is trained up to step {first_phase_steps}; "
        "a success rate says nothing and is not kept"
    )
