// Which files are photos. Browsers have no type for most raw files, so names count too; the service judges by the bytes.

const USUAL = "jpg jpeg jpe jfif png apng webp avif avifs heic heif hif gif tif tiff jxl";
const RAW = "dng nef nrw cr2 cr3 crw arw sr2 srf orf rw2 rwl pef raf srw mrw x3f 3fr iiq erf kdc dcr mef mos raw";
const EXTENSIONS = `${USUAL} ${RAW}`.split(" ");
const NAMES = new RegExp(`\\.(${EXTENSIONS.join("|")})$`, "i");

export const isPhoto = (file: File): boolean => file.type.startsWith("image/") || NAMES.test(file.name);

/** The same for a dialog that chooses files. */
export const PHOTOS = ["image/*", ...EXTENSIONS.map((one) => `.${one}`)].join(",");
