"""What a Node.js project needs: a version of Node.js, the packages of its lock, native modules that fit."""
