// Read the EXIF data of a photo from the first bytes of the original file.

export interface PhotoData {
  camera?: string;
  lens?: string;
  taken?: string;
  exposure?: string;
  aperture?: string;
  iso?: string;
  focalLength?: string;
  /** Whether the file says where it was taken. */
  position?: string;
}

const FIRST_BYTES = 256 * 1024;
const TAGS = { make: 0x10f, model: 0x110, exif: 0x8769, gps: 0x8825, taken: 0x9003, exposure: 0x829a } as const;
const MORE = { aperture: 0x829d, iso: 0x8827, focalLength: 0x920a, lens: 0xa434 } as const;
/** Cameras write exposures below this, in seconds, as a fraction, and others as a decimal. */
const SHORT = 0.2501;
const SIZES = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8];

export async function photoData(url: string): Promise<PhotoData | undefined> {
  const answer = await fetch(url, { headers: { Range: `bytes=0-${FIRST_BYTES - 1}` } });
  if (!answer.ok) return undefined;
  return parse(new Uint8Array(await answer.arrayBuffer()));
}

/** Find the TIFF structure: behind "Exif\0\0" (JPEG, HEIC), in a chunk of a PNG or a WebP, or the file itself. */
function parse(bytes: Uint8Array): PhotoData | undefined {
  const text = new TextDecoder("latin1").decode(bytes);
  const png = text.indexOf("eXIf");
  const marked = text.indexOf("Exif\0\0");
  const webp = text.startsWith("RIFF") ? text.search(/EXIF[^]{4}(II\*\0|MM\0\*)/) : -1;
  const start = /^(II\*\0|MM\0\*)/.test(text) ? 0 : marked >= 0 ? marked + 6 : png >= 0 ? png + 4 : webp >= 0 ? webp + 8 : -1;
  if (start < 0) return undefined;
  try {
    return read(new DataView(bytes.buffer, start));
  } catch {
    return undefined; // cut off or malformed
  }
}

type Value = string | number | number[];

function read(view: DataView): PhotoData | undefined {
  const little = view.getUint16(0) === 0x4949;
  if (!little && view.getUint16(0) !== 0x4d4d) return undefined;
  const first = directory(view, view.getUint32(4, little), little);
  const inner = first.get(TAGS.exif);
  const exif = typeof inner === "number" ? directory(view, inner, little) : new Map<number, Value>();
  const place = first.get(TAGS.gps);
  const gps = typeof place === "number" ? directory(view, place, little) : new Map<number, Value>();
  const text = (found: Value | undefined) => (typeof found === "string" ? found.trim() : undefined);
  const number = (found: Value | undefined) => (typeof found === "number" ? found : undefined);
  const exposure = number(exif.get(TAGS.exposure));
  const data: PhotoData = {};
  const put = (name: keyof PhotoData, value: string | undefined) => {
    if (value) data[name] = value;
  };
  const make = text(first.get(TAGS.make)) ?? "";
  const model = text(first.get(TAGS.model)) ?? "";
  put("camera", model.startsWith(make) ? model : `${make} ${model}`.trim());
  put("lens", text(exif.get(MORE.lens)));
  put("taken", text(exif.get(TAGS.taken))?.replace(/^(\d+):(\d+):(\d+)/, "$1-$2-$3"));
  put("exposure", exposure ? `${exposure < SHORT ? `1/${Math.round(1 / exposure)}` : Number(exposure.toFixed(1))} s` : undefined);
  const aperture = number(exif.get(MORE.aperture));
  put("aperture", aperture ? `f/${Number(aperture.toFixed(1))}` : undefined);
  put("iso", number(exif.get(MORE.iso))?.toString());
  const length = number(exif.get(MORE.focalLength));
  put("focalLength", length ? `${Number(length.toFixed(1))} mm` : undefined);
  put("position", position(gps));
  return Object.keys(data).length ? data : undefined;
}

function position(gps: Map<number, Value>): string | undefined {
  const degrees = (tag: number, negative: string) => {
    const parts = gps.get(tag);
    if (!Array.isArray(parts) || parts.length < 3) return undefined;
    const value = parts[0]! + parts[1]! / 60 + parts[2]! / 3600;
    return (gps.get(tag - 1) === negative ? -value : value).toFixed(5);
  };
  const latitude = degrees(2, "S");
  const longitude = degrees(4, "W");
  return latitude && longitude ? `${latitude}, ${longitude}` : undefined;
}

function directory(view: DataView, at: number, little: boolean): Map<number, Value> {
  const found = new Map<number, Value>();
  const entries = view.getUint16(at, little);
  for (let entry = 0; entry < Math.min(entries, 200); entry += 1) {
    const offset = at + 2 + entry * 12;
    const type = view.getUint16(offset + 2, little);
    const count = view.getUint32(offset + 4, little);
    const size = (SIZES[type] ?? 0) * count;
    if (!size || count > 1000) continue;
    const place = size <= 4 ? offset + 8 : view.getUint32(offset + 8, little);
    if (place + size > view.byteLength) continue;
    found.set(view.getUint16(offset, little), value(view, type, place, count, little));
  }
  return found;
}

function value(view: DataView, type: number, at: number, count: number, little: boolean): Value {
  if (type === 2) {
    let text = "";
    for (let n = 0; n < count && view.getUint8(at + n); n += 1) text += String.fromCharCode(view.getUint8(at + n));
    return text;
  }
  const one = (n: number): number => {
    const place = at + n * SIZES[type]!;
    if (type === 3) return view.getUint16(place, little);
    if (type === 4) return view.getUint32(place, little);
    if (type === 5) return view.getUint32(place, little) / (view.getUint32(place + 4, little) || 1);
    if (type === 10) return view.getInt32(place, little) / (view.getInt32(place + 4, little) || 1);
    return view.getUint8(place);
  };
  return count === 1 ? one(0) : Array.from({ length: count }, (_, n) => one(n));
}
