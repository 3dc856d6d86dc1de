'use strict';
// Small HTTP: routes with :names, bodies as buffers, requests as promises.
const http = require('http');

const read = stream => new Promise((resolve, reject) => {
  const chunks = [];
  stream.on('data', chunk => chunks.push(chunk));
  stream.on('end', () => resolve(Buffer.concat(chunks)));
  stream.on('error', reject);
});

// Ask another service: {status, body}.
exports.ask = (method, url, body, headers = {}) => new Promise((resolve, reject) => {
  const request = http.request(url, {method, headers, agent: false}, answer =>
    read(answer).then(found => resolve({status: answer.statusCode, body: found}), reject));
  request.on('error', reject);
  request.end(body);
});

// Serve routes: [method, '/task/:id', async (names, request, body) => [status, answer]].
exports.serve = (port, routes, listening) => {
  const known = routes.map(([method, path, handle]) =>
    [method, new RegExp(`^${path.replace(/:\w+/g, '([^/]+)')}/?$`), handle]);
  http.createServer(async (request, response) => {
    const body = await read(request);
    for (const [method, path, handle] of known) {
      const found = path.exec(request.url);
      if (!found || method !== request.method) continue;
      try {
        const [status, answer = ''] = await handle(found.slice(1), request, body);
        response.writeHead(status);
        return response.end(Buffer.isBuffer(answer) || typeof answer === 'string' ? answer : JSON.stringify(answer));
      } catch (error) {
        console.log(error.message);
        response.writeHead(502);
        return response.end(error.message);
      }
    }
    response.writeHead(404);
    response.end('Not found');
  }).listen(port, '0.0.0.0', listening);
};

// The part called image of a multipart form.
exports.image = (request, body) => {
  const boundary = /boundary="?([^";]+)/.exec(request.headers['content-type'] || '');
  if (!boundary) return null;
  const start = body.indexOf('\r\n\r\n', body.indexOf('name="image"'));
  const end = body.indexOf(`\r\n--${boundary[1]}`, start);
  return body.includes('name="image"') && start >= 0 && end >= 0 ? body.subarray(start + 4, end) : null;
};

exports.form = image => {
  const head = '--edge\r\nContent-Disposition: form-data; name="image"; filename="photo"\r\n\r\n';
  return [Buffer.concat([Buffer.from(head), image, Buffer.from('\r\n--edge--\r\n')]),
    {'Content-Type': 'multipart/form-data; boundary=edge'}];
};
