"""Translation between frozen networks with conditional invertible networks (Net2Net)."""
