"""Draw docs/images/vae.svg and aae.svg, from the structure of one program."""

from pathlib import Path

from ppl_vae import MLP, VAE, Binomial, Conditional, Normal, StandardNormal
from ppl_vae.data import digits
from ppl_vae.plots import diagram
from ppl_vae.programs.describe import describe
from ppl_vae.programs.inputs import program_batch

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Draw the one program that is a VAE under ELBO and an AAE under Adversarial."""
    program = VAE(
        StandardNormal(2),
        Conditional(MLP(), Binomial((8, 8), total=16), given=2),
        Conditional(MLP(), Normal(2), given=(8, 8)),
    )
    lines, _ = describe(program, program_batch(program, digits()[0][:2]))
    IMAGES.mkdir(exist_ok=True)
    for name, objective in (("vae", "ELBO"), ("aae", "Adversarial")):
        path = IMAGES / f"{name}.svg"
        path.write_text(diagram(lines, objective) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
