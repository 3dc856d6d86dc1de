'use strict';
const fs = require('fs');
const {serve, image} = require('./lib/web');
const {register} = require('./lib/registry');

fs.mkdirSync('/storage', {recursive: true});
const file = id => `/storage/${encodeURIComponent(id)}`;

serve(8002, [
  ['POST', '/upload/:id', ([id], request, body) => {
    const found = image(request, body);
    if (!found) return [400, 'Image not found'];
    fs.writeFileSync(file(id), found);
    return [200];
  }],
  ['GET', '/download/:id', ([id]) => fs.existsSync(file(id)) ? [200, fs.readFileSync(file(id))] : [404, 'Not found']],
], async () => {
  await register('storageendpoint', 8002, 'Storage');
  console.log('Storage is listening on 8002');
});
