// Photos that were shared to safelight from another program, in the browser's own database until the page takes them.

const NAME = "safelight-shared";
const STORE = "photos";

export async function keep(files: readonly File[]): Promise<void> {
  const database = await open();
  const transaction = database.transaction(STORE, "readwrite");
  for (const file of files) transaction.objectStore(STORE).add(file);
  await ended(transaction);
  database.close();
}

/** Take what was shared; it is kept no longer. */
export async function take(): Promise<File[]> {
  const database = await open();
  const transaction = database.transaction(STORE, "readwrite");
  const reading = transaction.objectStore(STORE).getAll() as IDBRequest<File[]>;
  transaction.objectStore(STORE).clear();
  await ended(transaction);
  database.close();
  return reading.result;
}

/** Empty a database, or remove some of its records, if there is one of that name. */
export async function empty(name = NAME, unwanted: (record: { id?: string; store?: string }) => boolean = () => true): Promise<void> {
  const known = await indexedDB.databases();
  if (!known.some((one) => one.name === name)) return;
  const database = await opened(indexedDB.open(name));
  const stores = [...database.objectStoreNames];
  if (stores.length) {
    const transaction = database.transaction(stores, "readwrite");
    for (const store of stores) {
      const reading = transaction.objectStore(store).openCursor();
      reading.onsuccess = () => {
        const cursor = reading.result;
        if (cursor && unwanted(cursor.value as object)) cursor.delete();
        cursor?.continue();
      };
    }
    await ended(transaction);
  }
  database.close();
}

function open(): Promise<IDBDatabase> {
  const opening = indexedDB.open(NAME, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { autoIncrement: true });
  return opened(opening);
}

const opened = (opening: IDBOpenDBRequest) =>
  new Promise<IDBDatabase>((resolve, reject) => {
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error ?? new Error(NAME));
  });

const ended = (transaction: IDBTransaction) =>
  new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error(NAME));
  });
