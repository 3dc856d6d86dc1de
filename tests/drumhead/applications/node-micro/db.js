'use strict';
const {serve} = require('./lib/web');
const {register} = require('./lib/registry');

const tasks = [];
const change = state => ([id]) => tasks[id] ? ((tasks[id].state = state), [200]) : [404, 'Task not found'];

serve(8001, [
  ['POST', '/task', () => [200, String(tasks.push({id: tasks.length, state: -1}) - 1)]],
  ['GET', '/task/next', () => {
    const task = tasks.find(one => one.state === 0);
    if (!task) return [404, {id: -1, state: 0}];
    task.state = 1;
    return [200, task];
  }],
  ['POST', '/task/:id/ready', change(0)],
  ['POST', '/task/:id/finish', change(2)],
  ['GET', '/task/:id', ([id]) => tasks[id] ? [200, tasks[id]] : [404, 'Task not found']],
], async () => {
  await register('dbendpoint', 8001, 'Database');
  console.log('Database is listening on 8001');
});
