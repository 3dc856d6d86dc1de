// Uploads a file with tus-js-client: node upload.mjs WEB URL FILE OPTIONS
import { createReadStream, statSync } from "node:fs";
import { createRequire } from "node:module";
import { basename } from "node:path";

const [web, endpoint, file, options] = process.argv.slice(2);
const { Upload } = createRequire(`${web}/package.json`)("tus-js-client");

let retries = 0;
const upload = new Upload(createReadStream(file), {
  endpoint,
  uploadSize: statSync(file).size,
  chunkSize: 16_000_000,
  retryDelays: [100, 200, 400, 800, 1600, 3200],
  metadata: { filename: basename(file) },
  ...JSON.parse(options),
  onShouldRetry: (error) => {
    retries += 1;
    console.error(`status ${error.originalResponse?.getStatus()}`);
    return true;
  },
  onError: (error) => {
    console.error(String(error));
    process.exit(1);
  },
  onSuccess: ({ lastResponse }) => {
    console.log(JSON.stringify({ url: upload.url, task: lastResponse.getHeader("Safelight-Task"), retries }));
  },
});
upload.start();
