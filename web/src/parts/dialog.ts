// Dialogs over the page.

/**
 * Show a dialog; returns a function that closes it. The focus goes back to where it was only when a dialog is closed,
 * not when it is just taken out of the page.
 */
export function shown(dialog: HTMLDialogElement): () => void {
  dialog.showModal();
  return () => dialog.close();
}
