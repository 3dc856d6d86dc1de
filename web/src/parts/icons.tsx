// Small line drawings, 24 by 24.

const PATHS = {
  lamp: "M4 15a8 8 0 0 1 16 0zM12 3v4M12 19v2M6 18.500l-1.500 2M18 18.500l1.500 2",
  photos: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.500 9h.01",
  tasks: "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
  recipes: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  batches: "M4 8h16v12H4zM6 5h12M8 2h8",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM15.500 15.500L21 21",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4.200 4.200 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4.200 4.200 0 0 0 6 6l1-1",
  zoomIn: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM15.500 15.500L21 21M10.500 7.500v6M7.500 10.500h6",
  zoomOut: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM15.500 15.500L21 21M7.500 10.500h6",
  undo: "M8 5L4 9l4 4M4 9h10a6 6 0 0 1 0 12h-3",
  edit: "M4 20h4L20 8l-4-4L4 16z",
  keyboard: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M8 14h8",
  system: "M4 20V10M10 20V4M16 20v-8M21 20H3",
  upload: "M12 16V4M7 9l5-5 5 5M4 20h16",
  folder: "M3 6h6l2 2h10v11H3z",
  camera: "M4 8h4l1.500-3h5L16 8h4v11H4zM12 16.500a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  download: "M12 4v12M7 11l5 5 5-5M4 20h16",
  pause: "M9 5v14M15 5v14",
  play: "M7 4.500v15l12-7.500z",
  close: "M6 6l12 12M18 6L6 18",
  retry: "M20 12a8 8 0 1 1-2.500-5.800M20 4v4.500h-4.500",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  check: "M5 13l4 4L19 7",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
  plus: "M12 5v14M5 12h14",
  copy: "M8 8h12v12H8zM16 8V4H4v12h4",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 3v2M12 19v2M3 12h2M19 12h2M5.600 5.600L7 7M17 17l1.400 1.400M5.600 18.400L7 17M17 7l1.400-1.400",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  compare: "M12 3v18M9 8l-4 4 4 4M15 8l4 4-4 4",
  grip: "M9 6h.01M15 6h.01M9 12h.01M15 12h.01M9 18h.01M15 18h.01",
  release: "M7 11V7a5 5 0 0 1 9.500-2M5 11h14v9H5z",
} as const;
export type IconName = keyof typeof PATHS;

export const Icon = ({ name }: { name: IconName }) => (
  <svg class={`icon ${name}`} viewBox="0 0 24 24" aria-hidden="true">
    <path d={PATHS[name]} />
  </svg>
);
