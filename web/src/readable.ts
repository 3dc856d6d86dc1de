// Whether files can still be read: a browser reports one that was changed or deleted since as a broken connection.

class Unreadable extends Error {}

/** Whether an upload failed for that. */
export const isUnreadable = (error: object) => "causingError" in error && error.causingError instanceof Unreadable;

/** Read the first byte; fail where that is impossible. */
export async function tryToRead(data: unknown): Promise<void> {
  if (!(data instanceof Blob)) return;
  await data.slice(0, 1).arrayBuffer().catch(() => {
    throw new Unreadable();
  });
}
