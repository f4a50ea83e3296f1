"""Figures 4.1 to 4.4 of the thesis: ASMG and its peers on three problems without gradients."""
