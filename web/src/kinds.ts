// Which files are photos. Browsers have no type for most raw files, so names count too; the service judges by the bytes.

const USUAL = "jpg jpeg jpe jfif png apng webp avif avifs heic heif hif gif tif tiff jxl";
const RAW = "dng nef nrw cr2 cr3 crw arw sr2 srf orf rw2 rwl pef raf srw mrw x3f 3fr iiq erf kdc dcr mef mos raw";
const EXTENSIONS = `${USUAL} ${RAW}`.split(" ");
const NAMES = new RegExp(`\\.(${EXTENSIONS.join("|")})$`, "i");

const isPhoto = (file: File): boolean => file.type.startsWith("image/") || NAMES.test(file.name);

/** The same for a dialog that chooses files. */
export const PHOTOS = ["image/*", ...EXTENSIONS.map((one) => `.${one}`)].join(",");

/** The path of a file in the folder that was chosen or dropped; its name where it was chosen by itself. */
export const relativePath = (file: File): string =>
  (file as File & { relativePath?: string | null }).relativePath || file.webkitRelativePath || file.name;

/** Programs keep what is theirs in hidden files of people's folders: previews, and notes of a Mac beside each photo. */
const isHidden = (file: File) => relativePath(file).includes("/") && /(^|\/)\./.test(relativePath(file));

/** What of these files is a photo, what is not one, and what is empty, without what is hidden in a folder. */
export function sorted(files: readonly File[]): Record<"photos" | "others" | "empties", File[]> {
  const seen = files.filter((file) => !isHidden(file));
  const images = seen.filter(isPhoto);
  return {
    photos: images.filter((file) => file.size > 0),
    others: seen.filter((file) => !isPhoto(file)),
    empties: images.filter((file) => file.size === 0),
  };
}
