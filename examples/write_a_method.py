"""A new method in one class: adversarial logit pairing (Kannan et al., 2018), run like any other.

python examples/write_a_method.py digits

Or as a plugin, with every option of the command line, and with the method's own fields as its options:

autolora fit digits --plugin examples/write_a_method.py --method alp --method-options.weight 0.1
"""

import sys
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

import autolora
from autolora import Batch, Method, RobustModel, register


@register("alp")
@dataclass
class LogitPairing(Method):
    r"""Half natural, half adversarial cross entropy, and logits that stay close: L = (L_nat + L_adv) / 2 + c MSE."""

    paper = "Kannan et al., 2018"
    weight: float = 0.5

    def loss(self, model: RobustModel, batch: Batch) -> dict[str, Tensor]:
        """Return the three terms by name; the log shows each of them."""
        natural, adversarial = model(batch.x).float(), model(batch.x_adv).float()
        return {
            "natural": F.cross_entropy(natural, batch.y) / 2,
            "adversarial": F.cross_entropy(adversarial, batch.y) / 2,
            "pairing": self.weight * F.mse_loss(natural, adversarial),
        }


if __name__ == "__main__":  # not when it is a plugin
    options = dict(pair.split("=") for pair in sys.argv[2:])
    result = autolora.finetune(sys.argv[1], method="alp", epochs=int(options.get("epochs", 3)), out=options.get("out"))
    print(f"natural {result.accuracy('natural'):.1%}, under PGD-10 {result.accuracy('pgd-10'):.1%}")
