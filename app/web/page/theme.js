// Runs before the first paint, so that a chosen theme does not flash. It is no module, as those run late.
{
  let theme = null;
  try {
    theme = localStorage.getItem("winnow-theme");
  } catch {
    // Storage is forbidden in some private windows: then the system's theme it is.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
