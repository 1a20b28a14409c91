"""The method: integrals of the gradient along a path of attention, as a Captum layer attribution."""
